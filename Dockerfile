# A server of the shipped checkpoints. ONNX Runtime computes; TensorFlow, which trains, is not in this image.
#   docker build -t bignas .
#   docker run --rm -p 8080:8080 -v bignas-cache:/cache bignas
# With TensorFlow beside it, for machines with an NVIDIA GPU (`--build-arg TENSORFLOW=cpu` for those without):
#   docker build -t bignas-tensorflow --target server-tensorflow .
#   docker run --rm --gpus all -p 8080:8080 bignas-tensorflow
FROM node:20-bookworm AS compiled
WORKDIR /bignas
COPY package.json package-lock.json .npmrc ./
RUN npm ci --include=dev
COPY tsconfig.json ./
COPY src src
COPY serve serve
COPY cli cli
RUN npm run build

# The compiler needs TensorFlow's types; the server needs neither, nor ONNX Runtime for other systems and processors.
FROM compiled AS build
RUN npm prune --omit=dev \
 && rm -rf node_modules/@tensorflow dist/.tsbuildinfo \
 && find node_modules/onnxruntime-node/bin -mindepth 2 -maxdepth 2 -type d ! -name linux -exec rm -rf {} + \
 && find node_modules/onnxruntime-node/bin -mindepth 3 -maxdepth 3 -type d ! -name "$(node -p process.arch)" -exec rm -rf {} +

# TensorFlow's library lies in /engine, where the addon that is built here looks for it.
FROM compiled AS engine
ARG TENSORFLOW=gpu
ENV BIGNAS_CACHE=/engine
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip && rm -rf /var/lib/apt/lists/*
RUN node cli/setup/engine.mjs "--${TENSORFLOW}" && npm prune --omit=dev

FROM node:20-slim AS base
# What glibc keeps of the memory that runs free, as `npm start` has it (cli/setup/serverMemory.mjs). For images of more than 64 pixels, add MALLOC_MMAP_MAX_=0.
ENV NODE_ENV=production HOST=0.0.0.0 PORT=8080 BIGNAS_CACHE_FOLDER=/cache \
    MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=2097152 MALLOC_TRIM_THRESHOLD_=33554432
WORKDIR /bignas
RUN mkdir /cache && chown node:node /cache
COPY package.json LICENSE ./
COPY checkpoints checkpoints
USER node
VOLUME /cache
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["node", "-e", "fetch('http://127.0.0.1:' + process.env.PORT + '/v2/health/live').then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "dist/cli/bignas-serve.js"]

FROM base AS server-tensorflow
ENV BIGNAS_CACHE=/engine
COPY --from=engine /engine /engine
COPY --from=engine /bignas/node_modules node_modules
COPY --from=engine /bignas/dist dist

FROM base AS server
COPY --from=build /bignas/node_modules node_modules
COPY --from=build /bignas/dist dist
