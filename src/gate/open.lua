-- Lets the sale admit, if this epoch is still held: Gate::open. ARGV: epoch. Answers 1 if it is open now.

local sale, why = recall()
if not sale then return why end
if sale.epoch ~= tonumber(ARGV[1]) then return 'of another epoch' end
redis.call('HSET', KEYS[1], 'live', 1)
return 1
