// A service that uses npm hot-shots as its users do: the socket comes from DD_DOGSTATSD_URL.
const StatsD = require('hot-shots');

const client = new StatsD({
  errorHandler: (error) => {
    console.error(error);
    process.exitCode = 1;
  },
});
for (let n = 0; n < 100; n += 1) {
  client.increment('js.orders', ['region:eu']);
  client.increment('js.orders', 2, { region: 'us' });
}
client.gauge('js.depth', 21.5);
client.timing('js.took', 42);
client.histogram('js.size', 10);
client.histogram('js.size', 30);
client.distribution('js.spread', 7);
client.unique('js.users', 'ann');
client.unique('js.users', 'bob');
client.check('js.check', client.CHECKS.OK, { message: 'fine' });
client.event('Deployed', 'version 2 is out');
client.close();
