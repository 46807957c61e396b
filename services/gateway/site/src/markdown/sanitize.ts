import createDOMPurify from "dompurify";

const purify = createDOMPurify(window);
const LINK = /^(?:https?:|mailto:)/i;

purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "A") {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  }
  const names = [...node.classList].filter((name) => /^(?:hljs|math)/.test(name));
  if (names.length) node.setAttribute("class", names.join(" "));
  else node.removeAttribute("class");
});

/** Turns HTML from a model into harmless nodes. */
export function sanitized(html: string): DocumentFragment {
  return purify.sanitize(html, {
    ALLOWED_TAGS: [
      ..."p br hr h1 h2 h3 h4 h5 h6 ul ol li blockquote pre code span a em strong del b i u s mark sub sup kbd".split(
        " ",
      ),
      ..."table thead tbody tr th td".split(" "),
    ],
    ALLOWED_ATTR: ["href", "class", "start", "title", "align"],
    ALLOWED_URI_REGEXP: LINK,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  });
}
