// Builds src/ into one script, one style sheet and one NOTICE, all below src/service/ui. The same sources give the same
// bytes: versions are locked, names are fixed, and nothing of this machine gets in. `node build.mjs DIRECTORY` builds
// elsewhere, which is how a test compares.
import { build } from "esbuild";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const target = process.argv[2] ?? join(here, "../../src/service/ui");

const result = await build({
  absWorkingDir: here,
  entryPoints: { page: "src/main.tsx" },
  outdir: "out",
  write: false,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022", "chrome123", "firefox120", "safari17.5"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  charset: "utf8",
  metafile: true,
  banner: { js: "/* Quire's page. What others wrote of it, and their licences: NOTICE.txt */" },
});

await mkdir(target, { recursive: true });
for (const file of result.outputFiles) await writeFile(join(target, file.path.split("/").at(-1)), file.contents);
await writeFile(join(target, "NOTICE.txt"), await notice(packagesIn(result.metafile)));

/** Names of the packages of which anything is in the bundle. */
function packagesIn(metafile) {
  const found = Object.keys(metafile.inputs).map((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1]);
  return [...new Set(found.filter(Boolean))].sort();
}

/** Every package with its version and the text of its licence. */
async function notice(names) {
  const parts = ["The page of Quire (page.js, page.css) contains these packages."];
  for (const name of names) {
    const folder = join(here, "node_modules", name);
    const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    const text = (await readFile(join(folder, "LICENSE"), "utf8")).trim().replaceAll("\r\n", "\n");
    parts.push(`${"-".repeat(78)}\n${name} ${version} (${license})\n\n${text}`);
  }
  return parts.join("\n\n") + "\n";
}
