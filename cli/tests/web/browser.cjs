// A browser for the scripts here.
"use strict";
const assert = require("node:assert/strict");
const puppeteer = require("puppeteer-core");

// Runs a visit in a browser of its own, and fails if a page reports an error.
exports.visit = async (work, { width = 1280, height = 900, scheme = "light" } = {}) => {
  const browser = await puppeteer.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    acceptInsecureCerts: true,
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--force-prefers-reduced-motion"],
  });
  const errors = [];
  try {
    const page = await browser.newPage();
    // As long as the tests wait for anything.
    page.setDefaultTimeout(120_000);
    await page.setViewport({ width, height });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("dialog", async (dialog) => {
      errors.push(`a dialog: ${dialog.message()}`);
      await dialog.dismiss();
    });
    page.on("console", (message) => {
      // A status that is no success is reported here too, and some are what is tested.
      if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) errors.push(message.text());
    });
    await work(page, browser);
    assert.deepEqual(errors, [], "expected no errors in the pages");
  } finally {
    await browser.close();
  }
};

// Whether a page can be scrolled to the side.
exports.overflows = (page) => page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);

// Clicks on what may be put in place of itself at that moment, and waits for where it leads.
exports.click = (page, selector) => Promise.all([page.waitForNavigation(), page.$eval(selector, (one) => one.click())]);

exports.text = (page, selector = "body") => page.$eval(selector, (one) => one.innerText);

exports.run = (work) => work().catch((error) => {
  console.error(error);
  process.exit(1);
});
