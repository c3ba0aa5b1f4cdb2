// Maps: one word at a time, each model in its own projection, coloured by a column that the reader chooses.
(() => {
  "use strict";
  const words = JSON.parse(document.getElementById("map-data").textContent);
  const find = (id) => document.getElementById(id);
  const chosenWord = find("map-word"), chosenColour = find("map-colour");
  const panels = [...find("maps").children];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const COLOURS = ["#3b82c4", "#d97706", "#0f9d76", "#c76a9d", "#cc4c1a"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross"];
  const SIGNS = ["●", "■", "◆", "▲", "✚"];
  // Early to late; the late end has the most contrast.
  const RAMPS = { light: ["#9ecae1", "#4292c6", "#084081"], dark: ["#2b5f94", "#5aa2dd", "#d6ecff"] };
  const PRINTED = 308; // pixels of a map on paper, which is narrower than a screen
  let printing = false;

  const unpacked = (text, Kind) => new Kind(Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)).buffer);
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const date = (day) => new Date(day * 864e5).toISOString().slice(0, 10);
  const theme = () => (dark.matches && !printing ? "dark" : "light");
  const title = (name) => [...chosenColour.options].find((one) => one.value === name)?.textContent ?? name;

  function columnsOf(word) {
    return Object.fromEntries(Object.entries(word.columns).map(([name, column]) => [
      name, { names: column.names, codes: unpacked(column.codes, column.names.length ? Int8Array : Int32Array) },
    ]));
  }

  function valueOf(column, point) {
    const code = column.codes[point];
    return code < 0 ? "unknown" : column.names.length ? column.names[code] : date(code);
  }

  function wrapped(text) {
    return text.split(" ").reduce((lines, part) => {
      if (lines[lines.length - 1].length + part.length > 46) lines.push(part);
      else lines[lines.length - 1] += " " + part;
      return lines;
    }, [""]).map((line) => plain(line.trim())).join("<br>");
  }

  function hoverOf(word, columns, count) {
    return Array.from({ length: count }, (_, point) => {
      const parts = Object.entries(columns).map(([name, column]) => `${plain(title(name))}: ${plain(valueOf(column, point))}`);
      if (word.texts.length) parts.unshift(wrapped(word.texts[point]));
      return parts.join("<br>") || `occurrence ${point + 1}`;
    });
  }

  function marksOf(count) {
    return { size: count > 600 ? 5 : 7, opacity: 0.75, line: { width: 0 } };
  }

  function tracesOf(word, space, number, columns, hover) {
    const x = unpacked(space.x, Int16Array), y = unpacked(space.y, Int16Array);
    const trace = (points, marker) => ({
      type: "scatter", mode: "markers", showlegend: false, hovertemplate: "%{text}<extra></extra>",
      x: points.map((point) => x[point]), y: points.map((point) => y[point]), text: points.map((point) => hover[point]),
      marker: { ...marksOf(x.length), ...marker },
    });
    const every = Array.from(x.keys()), column = columns[chosenColour.value];
    if (!column) return [trace(every, { color: COLOURS[number % COLOURS.length] })];
    const grey = trace(every.filter((point) => column.codes[point] < 0), { color: "#7d8590", symbol: "x-thin-open", line: { width: 1 } });
    if (column.names.length) {
      return [grey, ...column.names.map((_, code) => trace(
        every.filter((point) => column.codes[point] === code),
        { color: COLOURS[code % COLOURS.length], symbol: SYMBOLS[code % SYMBOLS.length] },
      ))];
    }
    const known = every.filter((point) => column.codes[point] >= 0);
    const ramp = RAMPS[theme()], colorscale = ramp.map((colour, place) => [place / (ramp.length - 1), colour]);
    return [grey, trace(known, { color: known.map((point) => column.codes[point]), colorscale })];
  }

  function drawKey(columns, word) {
    const key = find("map-key"), column = columns[chosenColour.value], entries = [];
    const entry = (colour, sign, text) => {
      const item = document.createElement("li"), mark = document.createElement("i");
      mark.style.color = colour;
      mark.textContent = sign + " ";
      mark.setAttribute("aria-hidden", "true");
      item.append(mark, text);
      entries.push(item);
    };
    if (!column) word.spaces.forEach((space, number) => entry(COLOURS[number % COLOURS.length], "●", space.title));
    else if (column.names.length) column.names.forEach((name, code) => entry(COLOURS[code % COLOURS.length], SIGNS[code % SIGNS.length], name));
    else {
      const days = Array.from(column.codes).filter((code) => code >= 0).sort((a, b) => a - b);
      const item = document.createElement("li"), ramp = document.createElement("span");
      ramp.className = "ramp";
      ramp.style.background = `linear-gradient(to right, ${RAMPS[theme()].join(", ")})`;
      item.append(days.length ? date(days[0]) + " " : "", ramp, days.length ? " " + date(days[days.length - 1]) : "");
      entries.push(item);
    }
    if (column && column.codes.some((code) => code < 0)) entry("#7d8590", "×", "unknown");
    key.replaceChildren(...entries);
  }

  let isLeading = false;
  function link(map, others) {
    // Highlight the same occurrence in the other model's map.
    map.on("plotly_hover", (event) => {
      if (isLeading) return;
      isLeading = true;
      const { curveNumber, pointNumber } = event.points[0];
      others.forEach((other) => Plotly.Fx.hover(other, [{ curveNumber, pointNumber }]));
      isLeading = false;
    });
    map.on("plotly_unhover", () => others.forEach((other) => Plotly.Fx.unhover(other)));
  }

  function render() {
    const word = words[chosenWord.selectedIndex], columns = columnsOf(word);
    const count = unpacked(word.spaces[0].x, Int16Array).length;
    const hover = hoverOf(word, columns, count), by = title(chosenColour.value);
    drawKey(columns, word);
    panels.forEach((panel, number) => {
      const space = word.spaces[number], [caption, map] = panel.children, share = document.createElement("span");
      share.textContent = space.explained === null ? "" : ` · ${Math.round(100 * space.explained)} % of the variance`;
      caption.replaceChildren(space.title, share);
      map.setAttribute("aria-label", `Map of ${count} occurrences of ${word.word} in ${space.title}, coloured by ${by}.`);
      const axis = { visible: false, range: [-32500, 32500], fixedrange: true };
      const layout = {
        xaxis: axis, yaxis: { ...axis, scaleanchor: "x" }, margin: { l: 0, r: 0, t: 0, b: 0 }, autosize: true, hovermode: "closest",
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: false, font: { family: "system-ui, sans-serif", size: 12 },
        hoverlabel: { align: "left" }, ...(printing ? { width: PRINTED, height: PRINTED } : {}),
      };
      Plotly.react(map, tracesOf(word, space, number, columns, hover), layout, { displayModeBar: false, responsive: true });
    });
    find("map-status").textContent =
      `${word.word}: ${count.toLocaleString("en")} occurrences` +
      (count < word.total ? `, a sample of ${word.total.toLocaleString("en")}` : "") + `, coloured by ${by}.`;
  }

  chosenWord.addEventListener("change", render);
  chosenColour.addEventListener("change", render);
  dark.addEventListener("change", render);
  addEventListener("beforeprint", () => { printing = true; render(); });
  addEventListener("afterprint", () => { printing = false; render(); });
  render();
  const maps = panels.map((panel) => panel.children[1]);
  maps.forEach((map) => link(map, maps.filter((other) => other !== map)));
})();
