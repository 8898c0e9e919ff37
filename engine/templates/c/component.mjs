// Makes a component of a module: component.mjs MODULE CONTRACT COMPONENT
import { readFile, writeFile } from "node:fs/promises";

import { componentEmbed, componentNew } from "@bytecodealliance/jco";

const [module, contract, component] = process.argv.slice(2);
const embedded = await componentEmbed({
  binary: await readFile(module),
  witSource: await readFile(contract, "utf8"),
  world: "strategy",
});
await writeFile(component, await componentNew(embedded, []));
