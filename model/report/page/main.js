// Put the parts together.

const frames = readJson("frames-data"), pictures = readJson("pictures-data");
const viewer = pictures.length ? startViewer(frames, pictures) : null;
byId("viewer").hidden = !viewer;
byId("nothing").hidden = Boolean(viewer);
if (viewer) startStrip(frames, viewer);
startPlots(readJson("plots-data"), viewer);
startTables(viewer);
viewer?.start();

byId("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(byId("command").textContent);
  byId("copy").textContent = "Copied";
});

const links = all("nav a");
const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    links.forEach((link) => link.removeAttribute("aria-current"));
    links.find((link) => link.hash === `#${target.id}`)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "-15% 0px -75% 0px" });
all("main > section[id]").forEach((section) => seen.observe(section));
