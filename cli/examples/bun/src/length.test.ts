import { expect, test } from "bun:test";
import odd from "is-odd";

import { length } from "./length";

test("two hours", () => {
  expect(length(7_200_000)).toBe("2 hours");
  expect(odd(3)).toBe(true);
});
