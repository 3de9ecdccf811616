// Copies the parts of onnxruntime-web that the page loads into static/: npm ci && npm run build

import { copyFileSync, mkdirSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";

const from = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url);
const to = new URL("./static/", import.meta.url);

mkdirSync(to, { recursive: true });
for (const name of ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"]) {
  copyFileSync(new URL(name, from), new URL(name, to));
  const megabytes = (statSync(new URL(name, to)).size / 1e6).toFixed(2);
  console.log(`${fileURLToPath(new URL(name, to))}: ${megabytes} MB`);
}
