// Updates the page of a server: its queue and its last frames, of which the newest is shown unless
// another was chosen.
const events = new EventSource("events");
const report = (words) => { document.querySelector("#state").textContent = words; };
events.addEventListener("open", () => report(""));
events.addEventListener("error", () => report("The server does not respond; the page is outdated."));
events.addEventListener("queue", (event) => {
  document.querySelector("#queue").innerHTML = event.data;
});
events.addEventListener("frame", (event) => {
  const chosen = frames.indexOf(wanted), newest = chosen === frames.length - 1;
  frames.push(JSON.parse(event.data));
  const dropped = frames.length > Number(document.querySelector("#queue").dataset.most);
  if (dropped) frames.shift();
  jump(newest ? frames.length - 1 : Math.max(chosen - dropped, 0));
});
