// Reading a chart: the pointer, or the arrow keys on it, move a line; the figures there are told beside it.

function readable(figure) {
  const slider = figure.querySelector("[role=slider]");
  const [line, told, points] = [slider.querySelector(".cursor"), figure.querySelector("output"), JSON.parse(slider.dataset.points)];
  const width = slider.querySelector("svg").viewBox.baseVal.width;
  let at = 0;
  const show = (place) => {
    at = Math.min(Math.max(place, 0), points.length - 1);
    const [x, text] = points[at];
    line.setAttribute("d", `M${x} 0V${line.dataset.height}`);
    slider.setAttribute("aria-valuenow", at);
    slider.setAttribute("aria-valuetext", text);
    told.textContent = text;
  };
  const nearest = (x) => points.reduce((best, point, place) => (Math.abs(point[0] - x) < Math.abs(points[best][0] - x) ? place : best), 0);
  slider.addEventListener("pointermove", (event) => {
    const box = slider.getBoundingClientRect();
    show(nearest(((event.clientX - box.left) / box.width) * width));
  });
  slider.addEventListener("focus", () => show(at));
  slider.addEventListener("keydown", (event) => {
    const to = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, Home: 0, End: points.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(to);
  });
}

document.querySelectorAll("figure.reading").forEach(readable);
