import pytest

pytest.importorskip("py3langid")

from eva.gates.language import Language, languages, shares
from tests.gates.chats import family

ENGLISH = "Explain in two paragraphs why the leaves of many trees turn red and fall in autumn."
TEXTS = {
    "de": "Erkläre in zwei Absätzen, warum sich die Blätter vieler Bäume im Herbst rot färben.",
    "fr": "Explique en deux paragraphes pourquoi les feuilles de nombreux arbres rougissent.",
    "es": "Explica en dos párrafos por qué las hojas de muchos árboles se ponen rojas en otoño.",
    "ru": "Объясни в двух абзацах, почему осенью листья многих деревьев краснеют и опадают.",
    "el": "Εξήγησε σε δύο παραγράφους γιατί τα φύλλα πολλών δέντρων κοκκινίζουν το φθινόπωρο.",
    "ar": "اشرح في فقرتين لماذا تتحول أوراق كثير من الأشجار إلى اللون الأحمر وتسقط في الخريف.",
    "ja": "多くの木の葉が秋に赤くなって落ちるのはなぜか、二つの段落で説明してください。",
    "ko": "많은 나무의 잎이 가을에 붉게 변하고 떨어지는 이유를 두 단락으로 설명해 주세요.",
    "hi": "दो अनुच्छेदों में समझाइए कि शरद ऋतु में कई पेड़ों की पत्तियाँ लाल होकर क्यों गिर जाती हैं।",
}


def flaw(parent: str, text: str) -> str | None:
    children, around = family(parent, text)
    return Language()(children, around)[0]


@pytest.mark.parametrize("code", TEXTS)
def test_a_child_in_another_language_is_refused_either_way(code):
    assert flaw(ENGLISH, TEXTS[code]) is not None
    assert flaw(TEXTS[code], ENGLISH) is not None


@pytest.mark.parametrize("code", TEXTS)
def test_a_child_in_the_language_of_its_parent_passes(code):
    assert flaw(TEXTS[code], TEXTS[code][10:] + TEXTS[code][:10]) is None


@pytest.mark.parametrize(
    ("parent", "text"),
    [
        (ENGLISH, "Bonjour le monde."),  # too short to tell one Latin language from another
        (ENGLISH, "17 + 4 = ?"),
        ("?!", TEXTS["ru"]),  # a parent without letters has no script
        (ENGLISH, "Translate into English: Листья многих деревьев краснеют. Explain each word."),
        ("Translate to Russian: good morning", "Translate to English and explain: доброе утро"),
        (ENGLISH, "Why does this fail?\n```python\nfor i in range(10):\n    print(x[i]\n```"),
        (ENGLISH, "Compare α-decay and β-decay of uranium, and say which one paper can stop."),  # noqa: RUF001
        (
            ENGLISH,
            "Write a SQL query that joins orders and customers and sums the totals by month.",
        ),
        ("Was ist ein Café?", "Was macht ein gutes Café aus, und wie findet man eines in Wien?"),
    ],
)
def test_what_cannot_be_told_or_is_quoted_passes(parent, text):
    assert flaw(parent, text) is None


def test_scripts_are_told_from_few_letters():
    assert flaw("Name three rivers.", "Назови три реки.") == (
        "it is written in Cyrillic letters, its parent in Latin ones"
    )
    assert shares("abc") == {}  # fewer than 8 letters
    assert shares("abcdждиш")["Cyrillic"] == 0.5


def test_a_language_is_named_only_when_it_is_sure():
    assert languages(ENGLISH)[0] == "en"
    assert languages(ENGLISH[:40]) == ()
    signs = "3 * x ** 2 + 0x7f -> [12, 9, 0] // 4; y[0] = {}; 88 % 3 == 1; ... 5 != 6; 7 >> 1"
    assert languages(signs) == ()


def test_near_languages_are_not_told_apart():
    croatian = "Objasni u dva odlomka zašto lišće mnogih stabala u jesen pocrveni i otpadne na tlo."
    serbian = "Objasni u dva pasusa zašto lišće mnogih stabala u jesen pocrveni i opadne na zemlju."
    assert flaw(croatian, serbian) is None
