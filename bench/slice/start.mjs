// npm run bench:slice [-- options]
import { besidePython } from '../serve/besidePython.mjs';

await besidePython('slice');
