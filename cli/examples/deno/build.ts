// Generates what the program reads.
Deno.writeTextFileSync("built.json", JSON.stringify({ milliseconds: 7_200_000 }));
