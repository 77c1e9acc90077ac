import { BignasError, shown } from '../src/errors.js';

/** What `POST /predict` takes as its body. */
export type BodyKind = 'image' | 'multipart' | 'json';

export const acceptedTypes = [
  'image/jpeg',
  'image/png',
  'image/webp',
  'application/octet-stream',
  'multipart/form-data',
  'application/json',
] as const;

/**
 * How the body of this content type is read. No content type means one image: its own first bytes say of what format.
 * @throws BignasError MEDIA_TYPE_UNSUPPORTED, with the accepted types
 */
export function bodyKind(contentType: string | undefined): BodyKind {
  const type = contentType?.split(';', 1)[0]!.trim().toLowerCase();
  switch (type) {
    case undefined:
    case 'image/jpeg':
    case 'image/png':
    case 'image/webp':
    case 'application/octet-stream':
      return 'image';
    case 'multipart/form-data':
      return 'multipart';
    case 'application/json':
      return 'json';
    case 'application/x-www-form-urlencoded':
      throw unsupported(type, ' With curl, add `-H "Content-Type: image/jpeg"`, or send `-F file=@photo.jpg`.');
    default:
      throw unsupported(type, '');
  }
}

function unsupported(type: string, hint: string): BignasError {
  return new BignasError('MEDIA_TYPE_UNSUPPORTED', `Expected the content type ${acceptedTypes.join(', ')}, got ${shown(type)}.${hint}`, {
    accepted: acceptedTypes,
  });
}
