// A server of Node's own modules: node node.js PORT http|http2
'use strict';
const http = require('node:http');
const http2 = require('node:http2');
const [, , port, protocol] = process.argv;

const answer = (request, response) => {
  const body = [];
  request.on('data', (part) => body.push(part));
  request.on('error', () => {});
  request.on('end', () => {
    const path = new URL(request.url, 'http://x').pathname;
    (routes[path] ?? routes.other)(request, response, Buffer.concat(body));
  });
};

const routes = {
  other: (_, response) => response.end('here\n'),
  // Every byte value, in parts.
  '/bytes': (_, response) => {
    response.setHeader('x-kind', 'bytes');
    for (let part = 0; part < 64; part++) {
      response.write(Buffer.from(Array.from({ length: 1024 }, (_, at) => (at * 7 + part) & 255)));
    }
    response.end();
  },
  '/echo': (request, response, body) => {
    response.setHeader('x-method', request.method);
    response.end(body);
  },
  '/trailers': (_, response) => {
    if (protocol === 'http') response.setHeader('trailer', 'x-sum');
    response.write('first,');
    response.addTrailers({ 'x-sum': '42' });
    response.end('last');
  },
  '/hints': (_, response) => {
    response.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' });
    response.end('after hints\n');
  },
  '/nothing': (_, response) => {
    response.statusCode = 204;
    response.end();
  },
  '/unchanged': (_, response) => {
    response.writeHead(304, { etag: '"a"' });
    response.end();
  },
  '/fails': (_, response) => {
    response.statusCode = 500;
    response.end('oh\n');
  },
  '/refuses': (_, response) => {
    response.statusCode = 422;
    response.end('no\n');
  },
  // The head promises a body that never ends well.
  '/breaks': (_, response) => {
    response.write('some');
    setTimeout(() => (response.stream ? response.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR) : response.destroy()), 20);
  },
  // The last answer on its connection.
  '/leaves': (request, response) => {
    if (request.stream) request.stream.session.close();
    response.end('bye\n');
  },
};

let server;
if (protocol === 'http2') {
  server = http2.createServer({ settings: { maxConcurrentStreams: 4, maxHeaderListSize: 1 << 17 } }, answer);
} else {
  server = http.createServer({ maxHeaderSize: 1 << 17, keepAliveTimeout: 50 }, answer);
  server.on('upgrade', (request, socket) => {
    socket.write(
      'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ' +
        `${request.headers.upgrade}\r\nsec-websocket-accept: ${request.headers['sec-websocket-key']}\r\n\r\n`,
    );
    socket.on('error', () => {});
    socket.pipe(socket);
  });
}
server.on('error', (error) => {
  console.error(error.message);
  process.exit(1);
});
server.listen(Number(port), '127.0.0.1');
