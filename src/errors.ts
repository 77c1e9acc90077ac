/**
 * Every error that a user can cause, in one catalogue. `status` is what the server answers; the command line prints the message.
 * docs/errors.md lists the same codes, and a test ties the two together.
 */
export const errorCatalogue = {
  ARCHITECTURE_MALFORMED: { status: 400, title: 'The architecture text cannot be read' },
  ARCHITECTURE_OUTSIDE_SPACE: { status: 400, title: 'The architecture lies outside the search space' },
  ARCHITECTURE_UNKNOWN: { status: 404, title: 'No architecture of that name or id' },
  BUDGET_MALFORMED: { status: 400, title: 'The budget cannot be read' },
  BUDGET_TOO_SMALL: { status: 422, title: 'No child fits the budget' },
  LATENCY_TABLE_INVALID: { status: 400, title: 'The latency table cannot be used' },
  COST_UNKNOWN: { status: 422, title: 'No child has that cost' },
  PARAMETER_INVALID: { status: 400, title: 'A request parameter is not legal' },
  BODY_EMPTY: { status: 400, title: 'The request has no image' },
  BODY_MALFORMED: { status: 400, title: 'The request body cannot be read' },
  BODY_TOO_LARGE: { status: 413, title: 'The request body is over the limit' },
  IMAGE_UNREADABLE: { status: 400, title: 'The image cannot be decoded' },
  IMAGE_TOO_LARGE: { status: 413, title: 'The image has too many pixels' },
  MEDIA_TYPE_UNSUPPORTED: { status: 415, title: 'That content type is not accepted' },
  FORMAT_UNKNOWN: { status: 400, title: 'That bundle format is not known' },
  DELTA_IMPOSSIBLE: { status: 400, title: 'No delta can be made of that' },
  DELTA_NOT_NESTED: { status: 422, title: 'The child that is held does not nest in the one that is asked for' },
  PRECONDITION_FAILED: { status: 412, title: 'The file is not the one that the request expects' },
  RANGE_INVALID: { status: 416, title: 'The file does not have that range' },
  REQUEST_MALFORMED: { status: 400, title: 'The request is no HTTP' },
  REQUEST_HEAD_TOO_LARGE: { status: 431, title: 'The request line and headers are over the limit' },
  REQUEST_TOO_SLOW: { status: 408, title: 'The request did not come in time' },
  ROUTE_UNKNOWN: { status: 404, title: 'No such route' },
  METHOD_NOT_ALLOWED: { status: 405, title: 'The route does not take that method' },
  OVERLOADED: { status: 503, title: 'The server is busy' },
  WORKER_LOST: { status: 503, title: 'A worker process or thread died while it computed' },
  DEADLINE_TOO_SHORT: { status: 504, title: 'No child answers in that time' },
  DEADLINE_MISSED: { status: 504, title: 'The answer would have come too late' },
  RELOAD_REFUSED: { status: 422, title: 'The new checkpoint is not served' },
  UNAUTHORISED: { status: 401, title: 'A token is needed' },
  FORBIDDEN: { status: 403, title: 'The token does not open this route' },
  RATE_LIMITED: { status: 429, title: 'Too many requests' },
  MODEL_UNKNOWN: { status: 404, title: 'No such model' },
  TENSOR_INVALID: { status: 400, title: 'A tensor is not what the model takes' },
  STORAGE_FULL: { status: 507, title: 'No room on the server’s disk' },
  SHUTTING_DOWN: { status: 503, title: 'The server is stopping' },
  INTERNAL: { status: 500, title: 'The server failed' },
  SPACE_INVALID: { status: 500, title: 'The search space is not valid' },
  BUNDLE_INVALID: { status: 500, title: 'The bundle cannot be used' },
  CHECKPOINT_INVALID: { status: 500, title: 'The checkpoint cannot be used' },
  CHECKPOINT_NEWER: { status: 500, title: 'The checkpoint is of a newer format version' },
  HISTORY_INVALID: { status: 500, title: "The run's history cannot be read" },
  ENGINE_MISSING: { status: 500, title: 'An engine is not installed' },
  DATA_INVALID: { status: 500, title: 'The data set cannot be used' },
  OPTION_INVALID: { status: 500, title: 'A command-line option is not legal' },
  SEARCH_INVALID: { status: 500, title: "A search's evaluations cannot be read" },
  SEARCH_MISMATCH: { status: 500, title: 'The evaluations are of another checkpoint' },
  RESUME_MISMATCH: { status: 500, title: 'The run cannot be resumed with these options' },
  LOSS_NOT_FINITE: { status: 500, title: 'The loss is not a finite number' },
} as const satisfies Record<string, { status: number; title: string }>;

export type ErrorCode = keyof typeof errorCatalogue;

/** An error that somebody can act on: what was expected, what came, how to mend it. */
export class BignasError extends Error {
  override readonly name = 'BignasError';

  /** @param details further fields of the problem document (RFC 9457, section 3.2), such as the legal values. */
  constructor(
    readonly code: ErrorCode,
    message: string,
    readonly details: Readonly<Record<string, unknown>> = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** How a value is shown in a message: its JSON, cut to a length that cannot flood a log. */
export function shown(value: unknown): string {
  // eslint-disable-next-line @typescript-eslint/no-unnecessary-condition -- undefined has no JSON, whatever the type says
  const text = typeof value === 'string' ? `\`${value}\`` : (JSON.stringify(value) ?? String(value));
  return text.length <= 120 ? text : `${text.slice(0, 117)}…`;
}

/** An error as it crosses between threads: a coded one keeps its code and details, any other its stack. */
export type SentError =
  | { readonly code: ErrorCode; readonly message: string; readonly details: Readonly<Record<string, unknown>> }
  | { readonly code: null; readonly message: string; readonly stack: string | undefined };

export function sentError(error: unknown): SentError {
  if (error instanceof BignasError) return { code: error.code, message: error.message, details: error.details };
  if (error instanceof Error) return { code: null, message: error.message, stack: error.stack };
  return { code: null, message: String(error), stack: undefined };
}

export function receivedError(sent: SentError): Error {
  if (sent.code !== null) return new BignasError(sent.code, sent.message, sent.details);
  const error = new Error(sent.message);
  if (sent.stack !== undefined) error.stack = sent.stack;
  return error;
}
