import assert from "node:assert/strict";
import { test } from "node:test";
import { openCode, stableLength, toHtml } from "../src/markdown/parse.ts";

const ANSWER = `# عنوان

یک *بند* با \`code\` و $a_b$.

- یک
- دو

  ادامه

1. اول

2. دوم

\`\`\`python
print("سلام")

# نه یک عنوان
\`\`\`

| a | b |
|---|---|
| 1 | 2 |

پایان`;

test("rendering a growing text block by block yields the same as rendering it at once", () => {
  let stable = 0;
  const blocks: string[] = [];
  for (let end = 1; end <= ANSWER.length; end++) {
    const length = stableLength(ANSWER.slice(stable, end));
    if (length > 0) blocks.push(toHtml(ANSWER.slice(stable, stable + length)));
    stable += length;
  }
  blocks.push(toHtml(ANSWER.slice(stable)));
  assert.ok(blocks.length >= 6, `only ${blocks.length} blocks`);
  assert.equal(blocks.join(""), toHtml(ANSWER));
});

test("a code block is open until its fence is repeated", () => {
  assert.deepEqual(openCode("```py\nx = 1\n"), { language: "py", code: "x = 1\n" });
  assert.equal(openCode("```py\nx = 1\n```\n"), undefined);
  assert.deepEqual(openCode("~~~~\n~~~\n"), { language: "", code: "~~~\n" });
  assert.equal(openCode("text\n"), undefined);
});

test("math keeps its underscores and backslashes", () => {
  assert.match(toHtml("یعنی $x_1 + x_2$ و \\(\\frac{a}{b}\\) است"), /\$x_1 \+ x_2\$.*\\\(\\frac\{a\}\{b\}\\\)/);
  assert.match(toHtml("$$\\sum_{i=1}^n i$$"), /\\sum_\{i=1\}\^n i/);
});

test("prices are not parsed as math", () => {
  assert.doesNotMatch(toHtml("It costs $5 and $10."), /math/);
});

test("HTML is displayed as text", () => {
  assert.match(toHtml("<div onclick=x>سلام</div>"), /&#60;div onclick=x&#62;/);
  assert.match(toHtml("H<sub>2</sub>O"), /H<sub>2<\/sub>O/);
});
