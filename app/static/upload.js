// Where a photo comes from: chosen, dropped, pasted. What is no single file is said in words.

const LINK = "That is a link to a picture, not the picture. Save the picture first and choose the "
  + "file, or copy the picture itself (right-click, Copy image) and paste it here.";
const ONE = "This page takes one at a time";
const NO_FILE = "There is no file in that. Drop the file of a photo.";

/**
 * Call `take(file, remark)` for each file that arrives, and `complain(message)` for what is none.
 * Of several, the first is taken, unless it would replace a photo: `occupied()` tells.
 * `input` is the file field, `target` what is marked while something is dragged over the page.
 */
export function listen({ input, target, take, complain, occupied }) {
  const takeFrom = (files, word) => {
    if (files.length > 1 && occupied()) {
      complain(`You ${word} ${files.length} files. ${ONE}.`);
      return;
    }
    const pictures = [...files].filter(({ type }) => type.startsWith("image/"));
    const file = pictures[0] ?? files[0];
    take(file, files.length > 1
      ? `You ${word} ${files.length} files. ${ONE}: here is ${file.name}.`
      : null);
  };
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // so that the same file can be chosen again
    if (files.length) takeFrom(files, "chose");
  });
  document.addEventListener("paste", ({ clipboardData: data, target: place }) => {
    if (data.files.length) takeFrom([...data.files], "pasted");
    else if (!place.closest?.("input") && isLink(data)) complain(LINK);
  });
  const drags = (data) => [...data.types].some((type) => type !== "text/x-breed");
  document.addEventListener("dragover", (event) => {
    if (!drags(event.dataTransfer)) return;
    event.preventDefault();
    target.classList.add("dropping");
  });
  document.addEventListener("dragleave", ({ relatedTarget }) => {
    if (!relatedTarget) target.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    const data = event.dataTransfer;
    target.classList.remove("dropping");
    if (event.defaultPrevented || !drags(data)) return; // a breed, dropped on another
    event.preventDefault();
    if (data.files.length) takeFrom([...data.files], "dropped");
    else complain(isLink(data) ? LINK : NO_FILE);
  });
}

function isLink(data) {
  return data.types.includes("text/uri-list") || /^(https?|data|blob|file):/.test(data.getData("text"));
}
