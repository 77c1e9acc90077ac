import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { problemSchema, protocolErrorSchema } from './answers.js';
import { packageVersion } from './packageVersion.js';
import { plainPath, type Content, type Operation, type Route } from './routes/route.js';

/** The part of an OpenAPI document's types that is made here. */
export interface OpenApiDocument {
  readonly openapi: '3.1.0';
  readonly info: { readonly title: string; readonly version: string; readonly description: string; readonly license: { readonly name: string; readonly identifier: string } };
  readonly paths: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, unknown>>; readonly securitySchemes: Readonly<Record<string, unknown>> };
}

/** Each with a value that every server knows. */
const pathParameters: Readonly<Record<string, readonly [description: string, example: string]>> = {
  arch: ['a family name such as M, an id of the checkpoint, or the text of an architecture', 'M'],
  model: ['`bignas`, or an architecture: a family name such as M, an id, or a text', 'bignas'],
  version: ['`1`; of the model `bignas` also an architecture', '1'],
  label: ['of the model `bignas` an architecture: a family name such as M, an id, or a text', 'M'],
};

/** The contract as OpenAPI 3.1, from the schemas that check requests and type the answers. */
export function openapiDocument(routes: readonly Route[]): OpenApiDocument {
  return {
    openapi: '3.1.0',
    info: {
      title: 'bignas',
      version: packageVersion(),
      description: 'Networks of any size, sliced on demand from one set of shared weights: predictions, and bundles to deploy.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    paths: Object.fromEntries(
      routes.map((route) => [
        plainPath(route.path.replace(/(?<!\\):(\w+)/g, '{$1}')),
        {
          ...(parametersOf(route.path).length > 0 && { parameters: parametersOf(route.path) }),
          ...(route.get && { get: operation(route.path, route.get) }),
          ...(route.post && { post: operation(route.path, route.post) }),
        },
      ]),
    ),
    components: {
      schemas: named(),
      securitySchemes: { token: { type: 'http', scheme: 'bearer', description: 'only where the server was started with tokens' } },
    },
  };
}

function parametersOf(path: string): unknown[] {
  return [...path.matchAll(/(?<!\\):(\w+)/g)].map(([, name]) => ({ name, in: 'path', required: true, description: pathParameters[name!]![0], example: pathParameters[name!]![1], schema: { type: 'string', minLength: 1 } }));
}

function operation(path: string, { id, summary, scope, query, body, answers }: Operation): Readonly<Record<string, unknown>> {
  const protocol = /^\/v[12](\/|$)/.test(path);
  const error = protocol
    ? { description: 'an error, as the protocol has it', content: content({ 'application/json': protocolErrorSchema }) }
    : { description: 'a problem document', content: content({ 'application/problem+json': problemSchema }) };
  return {
    operationId: id,
    summary,
    ...(scope && { security: [{ token: [scope] }, {}] }),
    ...(query && Object.keys(query.shape).length > 0 && { parameters: queryParameters(query) }),
    ...(body && { requestBody: { required: body.required, content: content(body.content) } }),
    responses: {
      ...Object.fromEntries(Object.entries(answers).map(([status, answer]) => [status, { description: answer.description, ...(answer.content && { content: content(answer.content) }) }])),
      default: error,
    },
  };
}

function queryParameters(query: z.ZodObject): unknown[] {
  const { properties = {}, required = [] } = z.toJSONSchema(query, { io: 'input', override });
  return Object.entries(properties).map(([name, schema]) => {
    const { description, ...rest } = schema as { description?: string };
    return { name, in: 'query', required: required.includes(name), ...(description !== undefined && { description }), schema: rest };
  });
}

function content(types: Content): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(types).map(([type, schema]) => [type, { ...(schema && { schema: reference(schema) }) }]));
}

function reference(schema: z.ZodType): unknown {
  const id = schema.meta()?.id;
  if (id !== undefined) return { $ref: component(id) };
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io: 'input', override });
  return rest;
}

/** A tuple of one kind as an array of that length: tools that read such documents know few tuples. */
function override({ jsonSchema }: { readonly jsonSchema: z.core.JSONSchema.BaseSchema }): void {
  const { prefixItems: [first, ...others] = [] } = jsonSchema;
  if (first === undefined || others.some((other) => !isDeepStrictEqual(other, first))) return;
  jsonSchema.items = first;
  delete jsonSchema.prefixItems;
}

/** Every schema that has an id. */
function named(): Record<string, unknown> {
  const { schemas } = z.toJSONSchema(z.globalRegistry, { uri: component, override });
  return Object.fromEntries(
    Object.entries(schemas).map(([id, schema]) => {
      const { $schema: _schema, $id: _id, id: _name, ...rest } = schema as Record<string, unknown>;
      return [id, rest];
    }),
  );
}

function component(id: string): string {
  return `#/components/schemas/${id}`;
}
