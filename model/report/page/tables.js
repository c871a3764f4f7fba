// Tables that sort by a column, and the frames that they link to.

const startTables = (viewer) => {
  const collator = new Intl.Collator(undefined, { numeric: true });
  const key = (row, column) => row.children[column].dataset.value ?? row.children[column].textContent;
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table), body = table.tBodies[0];
    heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const numbers = !head.classList.contains("text") && column > 0;
      const order = (a, b) => (numbers ? Number(key(a, column)) - Number(key(b, column)) || 0 : collator.compare(key(a, column), key(b, column)));
      body.append(...[...body.rows].sort((a, b) => (falls ? order(b, a) : order(a, b))));
    }));
  }
  for (const button of all("button.link")) {
    button.addEventListener("click", () => {
      viewer.show(button.dataset.sequence, Number(button.dataset.index));
      viewer.reveal();
    });
  }
};
