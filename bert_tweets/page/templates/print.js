// Paper is narrower than a screen, and has no scroll bar: charts are drawn anew to its width, and afterwards to the screen's.
(() => {
  "use strict";
  const PAPER = 640;
  const charts = () => [...document.querySelectorAll(".js-plotly-plot")];
  const closed = [];
  addEventListener("beforeprint", () => {
    for (const table of document.querySelectorAll("details:not([open])")) {
      closed.push(table);
      table.open = true;
    }
    for (const chart of charts()) {
      const several = chart.closest(".multiples, .maps");
      const width = several ? PAPER / 2 - 12 : PAPER;
      Plotly.relayout(chart, chart.closest(".maps") ? { width, height: width } : { width });
    }
  });
  addEventListener("afterprint", () => {
    while (closed.length) closed.pop().open = false;
    for (const chart of charts()) {
      Plotly.relayout(chart, chart.closest(".maps") ? { width: null, height: null, autosize: true } : { width: null, autosize: true });
    }
  });
})();
