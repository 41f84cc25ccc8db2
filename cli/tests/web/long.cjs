// long.cjs PAGES: any part of a very long log is shown at once, and never all of it.
"use strict";
const assert = require("node:assert/strict");
const { visit, text, run, click } = require("./browser.cjs");
const [pages] = process.argv.slice(2);

run(() => visit(async (page) => {
  await page.goto(`${pages}/builds`);
  await click(page, ".builds .name");
  const build = page.url();
  await page.click("#s1");
  await page.waitForSelector("#log1 li");
  assert.ok((await page.$$("#log1 li")).length <= 1000);
  await page.goto(`${build}/steps/1/log?stream=stdout&line=1000001`);
  assert.match(await text(page, "#L1000001"), /the end/);
  assert.ok((await page.$$(".lines li")).length <= 1000 && (await page.content()).length < 1_000_000);
  await page.goto(`${build}/steps/1/log?stream=stdout&q=the+end`);
  assert.match(await text(page, ".found"), /1 line matches/);
}));
