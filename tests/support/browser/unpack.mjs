// Unpacks Chromium and the libraries it needs into $TMPDIR and prints the program's path.
import { fileURLToPath } from "node:url"
import chromium, { inflate } from "@sparticuz/chromium"

const packed = new URL("../bin/al2023.tar.br", import.meta.resolve("@sparticuz/chromium"))
await inflate(fileURLToPath(packed))
console.log(await chromium.executablePath())
