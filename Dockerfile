# A server of the shipped checkpoints. ONNX Runtime computes; TensorFlow, which trains, is not in the image.
#   docker build -t bignas .
#   docker run --rm -p 8080:8080 bignas
FROM node:20-slim AS build
WORKDIR /bignas
COPY package.json package-lock.json .npmrc ./
RUN npm ci --include=dev
COPY tsconfig.json ./
COPY src src
COPY serve serve
COPY cli cli
RUN npm run build
# The compiler needs TensorFlow's types; the server needs neither, nor ONNX Runtime for other systems and processors.
RUN npm prune --omit=dev \
 && rm -rf node_modules/@tensorflow dist/.tsbuildinfo \
 && find node_modules/onnxruntime-node/bin -mindepth 2 -maxdepth 2 -type d ! -name linux -exec rm -rf {} + \
 && find node_modules/onnxruntime-node/bin -mindepth 3 -maxdepth 3 -type d ! -name "$(node -p process.arch)" -exec rm -rf {} +

FROM node:20-slim
ENV NODE_ENV=production HOST=0.0.0.0 PORT=8080
WORKDIR /bignas
COPY --from=build /bignas/node_modules node_modules
COPY --from=build /bignas/dist dist
COPY package.json LICENSE ./
COPY checkpoints checkpoints
USER node
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["node", "-e", "fetch('http://127.0.0.1:' + process.env.PORT + '/v2/health/live').then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "dist/cli/bignas-serve.js"]
