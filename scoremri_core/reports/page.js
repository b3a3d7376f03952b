// Sets the grey window of all frames, relative to the initial white value of each.
const ends = [...document.querySelectorAll(".window input")];
const setWindow = () => {
  const [low, high] = ends.map((end) => end.value / 100);
  // (x - low) / (high - low) as two CSS filters
  const slope = 1 / (high - low), contrast = 1 + 2 * low * slope;
  document.documentElement.style.setProperty(
    "--window", `brightness(${slope / contrast}) contrast(${contrast})`);
  ends.forEach((end) => { end.parentElement.querySelector("output").value = end.value; });
  document.querySelectorAll(".scale[data-top]").forEach((scale) => {
    const at = (share) => String(Number((share * scale.dataset.top).toPrecision(3)));
    scale.firstElementChild.textContent = at(low);
    scale.lastElementChild.textContent = at(high);
  });
};
document.addEventListener("input", (event) => {
  const moved = event.target;
  if (ends.includes(moved)) {
    const [black, white] = ends;
    if (black.valueAsNumber >= white.valueAsNumber) {  // move the other
      if (moved === black) white.value = black.valueAsNumber + 1;
      else black.value = white.valueAsNumber - 1;
    }
    setWindow();
    return;
  }
  // Shows the sample of the slider of a figure.
  const figure = moved.closest("figure");
  if (!figure || moved.type !== "range") return;
  figure.querySelector("output").value = moved.value;
  figure.querySelectorAll("svg").forEach((svg, i) => {
    svg.classList.toggle("on", i + 1 === Number(moved.value));
  });
});
