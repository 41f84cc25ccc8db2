// used.cjs PAGES BUILD ENDS: what the first step of a build uses is drawn while it runs, on a page that is never loaded again.
"use strict";
const assert = require("node:assert/strict");
const net = require("node:net");
const { visit, text, run, overflows } = require("./browser.cjs");
const [pages, build, ends] = process.argv.slice(2);

run(() => visit(async (page) => {
  await page.goto(`${pages}/builds/${build}/steps/1`);
  await page.evaluate(() => (window.same = true));
  const spans = () => page.$$eval("#usage-cpu rect.value", (all) => all.length);
  await page.waitForSelector("#usage-cpu rect.value");
  assert.equal(await text(page, "#step .badge"), "running");
  assert.match(await text(page, "#step .facts"), /Runs for/);
  assert.match(await text(page, "#usage"), /reserved[^]*allowed/);
  const before = await spans();
  await page.waitForFunction((before) => document.querySelectorAll("#usage-cpu rect.value").length > before, {}, before);
  const told = await page.evaluate(async (path) => (await fetch(path)).json(), `/api/v1/builds/${build}/steps/1`);
  assert.ok(told.usage.over_time.length > 1 && told.usage.memory_limit_bytes > 0, JSON.stringify(told.usage));
  // The step ends when somebody listens.
  const server = net.createServer((socket) => socket.destroy()).listen(Number(ends), "127.0.0.1");
  await page.waitForFunction(() => document.querySelector("#step .badge").innerText === "ran");
  server.close();
  assert.ok(await page.$("#usage-memory"), "expected what it used to stay");
  assert.match(await text(page, "#step"), /Command/);
  assert.doesNotMatch(await text(page, "#step .facts"), /Runs for/);
  assert.ok(await page.evaluate(() => window.same), "expected the page not to be loaded again");
  await page.setViewport({ width: 400, height: 800 });
  assert.ok(!(await overflows(page)), "expected the page to fit into 400 pixels");
}));
