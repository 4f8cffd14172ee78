// What a mark of a figure says, under the pointer, a finger or the arrow keys; and which boxes scroll sideways.
"use strict";
(() => {
  const REACH = 24; // pixels from a mark within which it is meant
  const tip = document.getElementById("tip"), how = document.getElementById("how");

  const listen = (figure) => {
    const box = figure.querySelector(".wide"), svg = figure.querySelector("svg");
    const marks = JSON.parse(figure.querySelector("script").textContent)
      .flatMap(([name, points], line) => points.map(([x, y, says]) => ({ x, y, line, text: `${name}: ${says}` })));
    const ring = svg.appendChild(document.createElementNS(svg.namespaceURI, "circle"));
    ring.setAttribute("class", "ring");
    let at = -1;
    const hide = () => { at = -1; tip.textContent = ""; ring.setAttribute("r", 0); };
    const show = (i) => {
      at = i;
      for (const [name, value] of [["cx", marks[i].x], ["cy", marks[i].y], ["r", 7]]) ring.setAttribute(name, value);
      if (tip.textContent !== marks[i].text) tip.textContent = marks[i].text; // it is read aloud when it changes
    };
    const place = () => {
      const of = ring.getBoundingClientRect(), above = of.top - tip.offsetHeight - 4;
      const right = document.documentElement.clientWidth - tip.offsetWidth - 8;
      tip.style.left = `${scrollX + Math.max(8, Math.min(of.left + of.width / 2 - tip.offsetWidth / 2, right))}px`;
      tip.style.top = `${scrollY + (above > 0 ? above : of.bottom + 4)}px`;
    };
    const point = (event) => {
      const matrix = svg.getScreenCTM();
      const here = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
      const away = marks.map(({ x, y }) => Math.hypot(x - here.x, y - here.y) * matrix.a);
      const nearest = away.reduce((best, distance, i) => (distance < away[best] ? i : best), 0);
      if (away[nearest] > REACH) return hide();
      show(nearest);
      place();
    };
    // Left and right go from mark to mark, with Shift from one line or cell to the next.
    const step = (event) => {
      if (event.key === "Escape") return hide();
      if (!/^Arrow(Left|Right)$/.test(event.key) || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const way = event.key === "ArrowRight" ? 1 : marks.length - 1, next = (i) => (i + way) % marks.length;
      let to = at < 0 ? 0 : next(at);
      while (event.shiftKey && at >= 0 && to !== at && marks[to].line === marks[at].line) to = next(to);
      show(to);
      ring.scrollIntoView({ block: "nearest", inline: "nearest" });
      place();
    };
    const leave = (event) => event.pointerType === "mouse" && hide(); // a finger is lifted to read
    const heard = { pointermove: point, pointerdown: point, pointerleave: leave, blur: hide, keydown: step };
    for (const [name, then] of Object.entries(heard)) box.addEventListener(name, then);
    box.style.cursor = "crosshair";
    box.setAttribute("aria-describedby", "how");
    how.hidden = false;
  };
  for (const script of document.querySelectorAll("figure script")) listen(script.closest("figure"));

  const measure = ({ target: box }) => box.classList.toggle("more", box.scrollWidth > box.clientWidth + 1);
  const sizes = new ResizeObserver((changed) => changed.forEach(measure));
  for (const box of document.querySelectorAll(".wide")) sizes.observe(box);

  const open = () => document.getElementById(location.hash.slice(1))?.closest("details")?.setAttribute("open", "");
  addEventListener("hashchange", open);
  open();
})();
