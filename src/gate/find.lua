-- One pending claim: Gate::find. ARGV: id. Answers: epoch, and the claim as JSON if it is there.

local sale, why = recall()
if not sale then return why end
return { sale.epoch, redis.call('HGET', KEYS[2], ARGV[1]) or nil }
