// tested.cjs PAGES BUILD: from a build to its tests, and to those of its step.
"use strict";
const assert = require("node:assert/strict");
const { visit, text, run, overflows, click } = require("./browser.cjs");
const [pages, build] = process.argv.slice(2);

run(async () => {
  for (const width of [1280, 400]) {
    await visit(async (page) => {
      const fits = async () => assert.ok(!(await overflows(page)), `expected ${page.url()} to fit into ${width} pixels`);
      await page.goto(`${pages}/builds/${build}`);
      assert.match(await text(page, ".tiles"), /2,500 passed, 1 failed, 1 skipped/);
      await click(page, ".tile a[href$='/tests']");
      await fits();
      assert.match(await text(page, ".tests details[open] summary"), /till is short[^]*expected 3, found <b>2<\/b>/);
      assert.match(await text(page, ".tests pre"), /<script>document.title='owned'<\/script> at till.rs:7/);
      assert.equal(await page.$$eval("ol.steps.rows > li", (rows) => rows.length), 1000, "expected a bounded page");
      await page.type("input[name=q]", "adds 2499");
      await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
      assert.match(await text(page, "ol.steps.rows"), /till adds 2499/);
      assert.equal((await page.$$(".tests")).length, 0, "expected only those of this name");
      await page.goto(`${pages}/builds/${build}/steps/1`);
      await fits();
      assert.match(await text(page, "#tests"), /till is short[^]*till.rs:7/);
      await click(page, "#tests a");
      assert.match(await text(page, ".tests"), /till is short/);
      assert.notEqual(await page.title(), "owned");
    }, { width });
  }
});
