// Updates the page of a server: its queue and its last frames, newest first.
const events = new EventSource("events");
const state = (words) => { document.querySelector("#state").textContent = words; };
events.addEventListener("open", () => state(""));
events.addEventListener("error", () => state("The server does not respond; the page is outdated."));
events.addEventListener("queue", (event) => {
  document.querySelector("#queue").innerHTML = event.data;
});
events.addEventListener("frame", (event) => {
  const last = document.querySelector("#last");
  const most = Number(last.dataset.most);
  last.insertAdjacentHTML("afterbegin", event.data);
  setWindow();
  while (last.children.length > most) last.lastElementChild.remove();
});
