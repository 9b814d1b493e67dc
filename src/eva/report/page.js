// Draws the charts of the page. Colours are CSS variables: the theme may change at any time.
window.evaReport = (() => {
  "use strict";
  const font = getComputedStyle(document.body).fontFamily;
  const soft = "var(--soft)", line = "var(--line)";
  const config = {
    background: "transparent",
    font,
    view: { stroke: null },
    axis: {
      labelColor: soft, titleColor: soft, domainColor: line, tickColor: line, gridColor: line,
      labelFontSize: 11, titleFontSize: 11, titleFontWeight: "normal", titlePadding: 8,
      labelPadding: 4, tickSize: 4, domain: false, labelOverlap: true,
    },
    axisX: { domain: true },
    axisY: { ticks: false },
    header: { labelColor: soft, titleColor: soft, labelFontSize: 11, titleFontSize: 11 },
  };
  const options = {
    mode: "vega-lite", actions: false, renderer: "svg", ast: true, defaultStyle: false, config,
    tooltip: { disableDefaultStyle: true },
  };
  const NARROW = 480, LINE = 13; // pixels
  // In a narrow place, long names of rows are broken into lines, and the rows are higher.
  const fitted = (spec, width) => {
    const named = (spec.layer ?? []).filter((layer) => layer.encoding?.y?.axis?.labelLimit);
    if (width >= NARROW || !named.length) return spec;
    const narrow = structuredClone(spec);
    for (const { encoding } of narrow.layer) {
      if (!encoding?.y?.axis?.labelLimit) continue;
      const names = encoding.y.scale.domain;
      const lines = Math.max(...names.map((name) => name.split(", ").length));
      narrow.height = names.length * (LINE * lines + 9);
      Object.assign(encoding.y.axis,
        { labelExpr: "split(datum.label, ', ')", labelLineHeight: LINE, labelLimit: 0.5 * width });
    }
    return narrow;
  };
  const own = { specs: JSON.parse(document.getElementById("charts").textContent) };
  own.embed = (place) => {
    place.dataset.drawn = "yes";
    const spec = fitted(own.specs[place.dataset.chart], place.clientWidth);
    return vegaEmbed(place, spec, options).catch((error) => {
      place.textContent = "This chart could not be drawn: " + error;
    });
  };
  own.drawAll = () => {
    for (const place of document.querySelectorAll("[data-chart]:not([data-drawn])"))
      if (!place.closest("details:not([open])")) own.embed(place);
  };
  // A link to a folded part unfolds it.
  const unfold = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let part = target; part; part = part.parentElement)
      if (part.tagName === "DETAILS") part.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", unfold);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (link && link.hash === location.hash) unfold();
  });
  // `toggle` does not bubble, but it can be caught on its way down.
  document.addEventListener("toggle", own.drawAll, true);
  // On paper nothing can be opened: sections are printed open, long texts and lineages as they are.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll(".fold:not([open]), .answers:not([open])")];
    for (const part of opened) part.open = true;
    own.drawAll();
  });
  addEventListener("afterprint", () => { for (const part of opened) part.open = false; });
  own.drawAll();
  if (location.hash) unfold();
  return own;
})();
