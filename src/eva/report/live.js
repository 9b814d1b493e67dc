// Asks the server of `eva report --watch` for the next state of the page, and lays it over this one:
// what did not change is not touched, so that place, selection, focus and open parts stay.
(() => {
  "use strict";
  const EVERY = 2000; // milliseconds
  const BELOW_NAV = 72; // pixels
  let known = null; // the tag of the state that is shown
  let asking = false;
  document.documentElement.style.overflowAnchor = "none";
  const said = document.createElement("p");
  said.className = "live";
  said.setAttribute("role", "status");
  document.body.append(said);
  const say = (text, well) => {
    if (said.textContent !== text) said.textContent = text;
    said.classList.toggle("lost", !well);
  };

  // What is read stays where it is, whatever changes above it.
  const hold = (change) => {
    const anchor = [...document.querySelectorAll("h1, h2, h3, p, li, figure, tr, summary, .card")]
      .find((part) => part.getBoundingClientRect().top >= BELOW_NAV && part.checkVisibility());
    const before = anchor?.getBoundingClientRect().top;
    change();
    const moved = anchor?.isConnected ? anchor.getBoundingClientRect().top - before : 0;
    if (moved) scrollBy({ top: moved, behavior: "instant" });
  };

  // A chart that changed is drawn beside the old one, unseen, and then takes its place.
  const redraw = (place) => {
    if (place.closest("details:not([open])")) {
      place.replaceChildren();
      delete place.dataset.drawn;
      return null;
    }
    const next = place.cloneNode(false);
    next.style.cssText = `position:absolute;visibility:hidden;width:${place.clientWidth}px`;
    place.after(next);
    return window.evaReport.embed(next).then(() => {
      hold(() => {
        next.style.cssText = "";
        place.remove();
      });
    });
  };
  const chart = (old, fresh, specs, waiting) => {
    const was = JSON.stringify(window.evaReport.specs[old.dataset.chart]);
    const is = JSON.stringify(specs[fresh.dataset.chart]);
    old.dataset.chart = fresh.dataset.chart;
    old.setAttribute("aria-label", fresh.getAttribute("aria-label"));
    if (was !== is && old.dataset.drawn) waiting.push(old);
  };
  const alike = (a, b) => a.nodeName === b.nodeName && a.id === b.id &&
    Boolean(a.dataset?.chart) === Boolean(b.dataset?.chart);
  const attributes = (old, fresh) => {
    for (const { name, value } of [...fresh.attributes])
      if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
    for (const { name } of [...old.attributes])
      if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  };
  const lay = (old, fresh, specs, waiting) => {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    if (old.dataset.chart) return chart(old, fresh, specs, waiting);
    attributes(old, fresh);
    let place = old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      const found = wanted.id ? [...old.children].find((c) => c.id === wanted.id) : place;
      if (found && alike(found, wanted)) {
        if (found === place) place = place.nextSibling;
        else old.insertBefore(found, place);
        lay(found, wanted, specs, waiting);
      } else {
        old.insertBefore(document.importNode(wanted, true), place);
      }
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  };
  const show = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const specs = JSON.parse(fresh.getElementById("charts").textContent);
    const waiting = [];
    document.title = fresh.title;
    hold(() => {
      lay(document.getElementById("page"), fresh.getElementById("page"), specs, waiting);
      window.evaReport.specs = specs;
    });
    window.evaReport.drawAll();
    return Promise.all(waiting.map(redraw));
  };
  const ask = async () => {
    const headers = known ? { "If-None-Match": known } : {};
    const answer = await fetch(location.pathname, { cache: "no-store", headers }).catch(() => null);
    if (answer === null) return say("eva report has ended; this is the last state", false);
    if (answer.status === 200) {
      await show(await answer.text());
      known = answer.headers.get("ETag");
    }
    const well = answer.ok || answer.status === 304;
    say(well ? "live" : "the next state cannot be drawn yet", well);
  };
  const again = async () => {
    if (!asking && !document.hidden) {
      asking = true;
      await ask().finally(() => { asking = false; });
    }
  };
  document.addEventListener("visibilitychange", again);
  setInterval(again, EVERY);
  again();
})();
