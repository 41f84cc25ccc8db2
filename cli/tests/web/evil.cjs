// evil.cjs PAGES: nothing that a build says is obeyed.
"use strict";
const assert = require("node:assert/strict");
const { visit, text, run, click } = require("./browser.cjs");
const [pages] = process.argv.slice(2);

run(() => visit(async (page) => {
  await page.goto(`${pages}/builds`);
  await click(page, ".builds .name");
  await page.click("#s1");
  await page.waitForSelector("#log1 li");
  await page.goto(page.url() + "/steps/1/log");
  const log = await text(page, ".log");
  assert.ok(log.includes("<script>document.title='owned'</script>"), "expected the markup as text");
  assert.ok(log.includes("</code></li></ol><h1>owned</h1>"));
  assert.ok(!(await page.title()).includes("owned") && (await page.$$("h1")).length === 1);
  assert.equal((await page.$$(".log script, .log img, .log a[href^=javascript]")).length, 0);
  // eslint-disable-next-line no-control-regex
  assert.ok(!/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/.test(log), "expected no control characters");
  assert.match(log, /MiB (more on this line|left out)/);
  assert.match(log, /after/);
  assert.ok((await page.content()).length < 400_000, "expected ten megabytes not to be in the page");
}));
