import ms from "ms";

Deno.test("two hours", () => {
  if (ms("2 hours") !== 7_200_000) throw new Error("not two hours");
});
