import assert from "node:assert/strict";
import { test } from "node:test";
import { bringsKey, keyOf } from "../src/key-fragment.ts";

const KEY = `vlx_${"a1".repeat(18)}`;

test("a page of this machine takes the key of a link", () => {
  for (const host of ["127.0.0.1", "127.8.9.1", "localhost", "[::1]"]) assert.equal(keyOf(`#key=${KEY}`, host), KEY);
});

test("a page of another machine takes no key, and removes it", () => {
  for (const host of [
    "ai.example.com",
    "localhost.example.com",
    "127.0.0.1.example.com",
    "10.0.0.1",
    "128.0.0.1",
    "",
  ]) {
    assert.equal(keyOf(`#key=${KEY}`, host), "");
    assert.ok(bringsKey(`#key=${KEY}`));
  }
});

test("other fragments bring no key", () => {
  for (const hash of ["", "#", "#playground", "#keys", "#key", "#models?key=vlx_a", `#playground&key=${KEY}`]) {
    assert.equal(keyOf(hash, "127.0.0.1"), "");
    assert.ok(!bringsKey(hash));
  }
});

test("what is no key is not taken", () => {
  for (const text of ["", "vlx_", "abc", "vlx_a b", "vlx_<script>", "javascript:alert(1)", "vlx_a%20b"]) {
    assert.equal(keyOf(`#key=${text}`, "127.0.0.1"), "");
  }
});
