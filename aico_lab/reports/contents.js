// Marks the section that is being read, and closes the menu of a narrow screen after a choice.
// The contents work without it.
const box = document.getElementById("show-contents");
if (!box) return;
const links = [...document.querySelectorAll(".contents a")];
for (const link of links) link.addEventListener("click", () => { box.checked = false; });
document.addEventListener("keydown", event => { if (event.key === "Escape") box.checked = false; });
const headings = links.map(link => document.getElementById(decodeURIComponent(link.hash.slice(1))));
const mark = () => {
  const read = headings.filter(one => one.getBoundingClientRect().top < innerHeight / 3).length;
  links.forEach((link, at) => at === read - 1
    ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"));
};
let due = 0;
addEventListener("scroll", () => {
  cancelAnimationFrame(due);
  due = requestAnimationFrame(mark);
}, {passive: true});
mark();
