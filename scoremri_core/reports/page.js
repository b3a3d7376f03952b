// Flips through the samples of a figure as its slider is moved.
document.addEventListener("input", (event) => {
  const figure = event.target.closest("figure");
  if (!figure || event.target.type !== "range") return;
  figure.querySelector("output").value = event.target.value;
  figure.querySelectorAll("svg").forEach((svg, i) => {
    svg.classList.toggle("on", i + 1 === Number(event.target.value));
  });
});
