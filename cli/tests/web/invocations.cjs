// invocations.cjs PAGES ID PORT: an invocation is followed to its end, which comes when somebody connects to the port.
"use strict";
const assert = require("node:assert/strict");
const net = require("node:net");
const { visit, text, run, overflows, click } = require("./browser.cjs");
const [pages, id, port] = process.argv.slice(2);

run(() => visit(async (page) => {
  await page.goto(`${pages}/invocations`);
  assert.match(await text(page, ".builds .name"), /test \/\/\.\.\./);
  await click(page, ".builds .name");
  await page.waitForSelector("#invocation .badge.running");
  assert.ok(page.url().endsWith(`/invocations/${id}`));
  await page.evaluate(() => (window.same = true));
  await page.$eval("#printed > li", (one) => (one.dataset.kept = "yes"));
  assert.equal(await text(page, "#output .f1"), "ERROR:");
  net.connect(Number(port), "127.0.0.1").on("error", () => {});
  await page.waitForSelector("#invocation .badge.failed");
  assert.ok(await page.evaluate(() => window.same), "expected the page not to be loaded again");
  // What it printed was added to what was there.
  assert.equal(await page.$eval("#printed > li", (one) => one.dataset.kept), "yes");
  assert.match(await page.$eval("#printed > li:last-child", (one) => one.innerText), /3 tests, at last/);
  // What failed is first, and nothing of it is markup.
  assert.match(await text(page, "#error"), /no such file/);
  assert.match(await text(page, "#error h3"), /<script>/);
  const names = await page.$$eval("[aria-labelledby=tests] .name", (all) => all.map((one) => one.innerText));
  const outcomes = await page.$$eval("[aria-labelledby=tests] .outcome", (all) => all.map((one) => one.innerText));
  const rows = names.map((name, at) => `${name}: ${outcomes[at]}`);
  assert.deepEqual(rows, ["//:sometimes attempt 1: failed", "//:wrong: failed", "//:right: passed", "//:sometimes attempt 2: passed"]);
  assert.match(await text(page, ".tiles"), /1 flaky/);
  assert.ok(!(await page.evaluate(() => window.attacked)), "expected no script of the invocation to run");
  for (const url of [`${pages}/invocations`, `${pages}/invocations/${id}`]) {
    await page.setViewport({ width: 400, height: 800 });
    await page.goto(url);
    assert.ok(!(await overflows(page)), `expected ${url} to fit into 400 pixels`);
  }
}));
