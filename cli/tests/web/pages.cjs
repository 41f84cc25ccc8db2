// pages.cjs PAGES: from the list to a step, its files, its artifact, a comparison and the farm, in 1,280 and in 400 pixels.
"use strict";
const assert = require("node:assert/strict");
const { visit, text, run, overflows, click } = require("./browser.cjs");
const [pages] = process.argv.slice(2);

run(async () => {
  for (const width of [1280, 400]) {
    await visit(async (page) => {
      const fits = async () => assert.ok(!(await overflows(page)), `expected ${page.url()} to fit into ${width} pixels`);
      const go = async (selector) => {
        await click(page, selector);
        await fits();
      };
      await page.goto(`${pages}/builds`);
      await go(".builds .name");
      const build = page.url();
      await page.goto(`${build}/steps/1`);
      await fits();
      const step = await text(page);
      assert.match(step, /src\/in.txt/, "expected the file that has changed");
      assert.match(step, /mkdir -p out\/deep/);
      assert.match(await page.$eval("#environment", (one) => one.textContent), /COLOUR/);
      await page.goto(`${build}/steps/1/inputs`);
      await fits();
      await go("a[href$='/inputs/src']");
      assert.match(await text(page, ".tree"), /<img src=x>/, "expected an odd name as it is");
      assert.equal((await page.$$(".tree img")).length, 0);
      await page.goto(`${build}/steps/1/outputs`);
      await go("a[href$='/outputs/out']");
      assert.match(await text(page, ".tree"), /deep\//);
      await page.goto(build);
      await go(".artifacts a");
      assert.match(await text(page), /urn:kiln/, "expected the provenance");
      await fits();
      await go("a[href$='/layers']");
      assert.match(await text(page), /Largest files[^]*out\/deep\/made.txt/, "expected what is in the archive");
      await go("tbody a");
      assert.match(await text(page, ".tree"), /out\/deep\/made.txt/);
      await page.goto(`${pages}/compare?b=${build.split("/").pop()}`);
      await fits();
      assert.match(await text(page), /changed/);
      await page.goto(`${pages}/artifacts`);
      await fits();
      await page.goto(`${pages}/farm`);
      await fits();
      assert.match(await text(page), /one/);
      await page.click("summary.head");
      assert.match(await text(page, ".rows details[open]"), /Kernel/);
    }, { width });
  }
});
