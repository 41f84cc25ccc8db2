// follow.cjs PAGES BUILD HELD RUNS: a build is seen to wait, to run, and to end, on pages that are never loaded again.
"use strict";
const assert = require("node:assert/strict");
const net = require("node:net");
const { visit, text, run, overflows } = require("./browser.cjs");
const [pages, build, held, runs] = process.argv.slice(2);
// Lets a step go on that waits for somebody who listens.
const open = (port) => net.createServer((socket) => socket.destroy()).listen(Number(port), "127.0.0.1");

run(() => visit(async (page, browser) => {
  const list = await browser.newPage();
  list.setDefaultTimeout(60_000);
  await list.goto(`${pages}/builds`);
  // A page in the background follows nothing.
  await page.bringToFront();
  await page.goto(`${pages}/builds/${build}`);
  await page.evaluate(() => (window.same = true));
  await page.waitForFunction(() => document.querySelector("#top .notice.odd")?.innerText.includes("waits"));
  await page.waitForFunction(() => document.querySelector("#s1 .outcome").innerText === "queued");
  assert.ok(await list.$(".builds .badge.running"));
  const first = open(held);
  await page.waitForFunction(() => document.querySelector("#s1 .outcome").innerText === "running");
  await page.waitForFunction(() => !document.querySelector("#top .notice.odd"));
  assert.ok(await page.$("#graph .node.running"), "expected the graph to show what runs");
  await page.click("#s1");
  await page.waitForFunction(() => document.querySelector("#log1 li")?.innerText.includes("green line"));
  assert.equal(await text(page, "#log1 .f2"), "green");
  // The step goes on, and its log with it.
  const second = open(runs);
  await page.waitForFunction(() => document.querySelector("#log1").innerText.includes("last line"));
  first.close();
  second.close();
  await page.waitForFunction(() => document.querySelector("#top .badge").innerText === "succeeded");
  assert.equal(await text(page, "#s2 .outcome"), "ran");
  assert.match(await text(page, ".artifacts"), /followed/);
  assert.ok(await page.$eval("#d1", (one) => one.open), "expected what was opened to stay open");
  assert.ok(await page.evaluate(() => window.same), "expected the page not to be loaded again");
  await list.bringToFront();
  await list.waitForSelector(".builds .badge.succeeded");
  for (const url of [`${pages}/builds`, `${pages}/builds/${build}`, `${pages}/builds/${build}/steps/1/log`]) {
    await page.bringToFront();
    await page.setViewport({ width: 400, height: 800 });
    await page.goto(url);
    assert.ok(!(await overflows(page)), `expected ${url} to fit into 400 pixels`);
  }
}));
