// The public page's raw JavaScript, with only the URL and the key changed.
const [url, key] = process.argv.slice(2);

const ws = new WebSocket(url);

ws.onopen = () => {
  // Auth
  ws.send(JSON.stringify({ type: 'auth', token: key }));
  
  // Subscribe
  ws.send(JSON.stringify({ type: 'subscribe', collection: 'messages' }));
};

ws.onmessage = (msg) => {
  const data = JSON.parse(msg.data);
  if (data.type === 'subscribed') console.error('ready');
  if (data.type === 'event') {
    console.log(`New message: ${data.document.data.text}`);
  }
};
