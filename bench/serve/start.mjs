// npm run bench:serve [-- options]
import { besidePython } from './besidePython.mjs';

await besidePython('serve');
