// Draws the charts of the page. Colours are CSS variables: the theme may change at any time.
(() => {
  "use strict";
  const specs = JSON.parse(document.getElementById("charts").textContent);
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
  };
  const options = {
    mode: "vega-lite", actions: false, renderer: "svg", ast: true, defaultStyle: false, config,
    tooltip: { disableDefaultStyle: true },
  };
  const draw = (place) => {
    if (place.dataset.drawn || place.closest("details:not([open])")) return;
    place.dataset.drawn = "yes";
    vegaEmbed(place, specs[place.dataset.chart], options).catch((error) => {
      place.textContent = "This chart could not be drawn: " + error;
    });
  };
  const drawAll = () => document.querySelectorAll("[data-chart]").forEach(draw);
  document.querySelectorAll("details").forEach((part) => part.addEventListener("toggle", drawAll));
  drawAll();
})();
