-- The crowd of wrk: every request is another customer's order of one unit, under a key of its own.
--
-- Arguments behind `--`: the number of the first customer (ten digits, so that every body has the same length), the
-- sale's id, and how many sales there are. With several, the sales are called ID-0001, ID-0002, ... and take turns. With a
-- fourth one, `close`, every order asks for the end of its connection, and the next one comes on a new one.

local customer, heads, turn
local MIDDLE = '\r\n\r\n{"customer":"c-'
local TAIL = '","lines":[{"sku":"ps5","quantity":1}]}'

function init(args)
   customer = tonumber(args[1])
   local sale, sales = args[2], tonumber(args[3])
   local last = args[4] == "close" and "\r\nConnection: close" or ""
   local length = #MIDDLE - 4 + 10 + #TAIL
   heads, turn = {}, 0
   for number = 1, sales do
      local id = sale
      if sales > 1 then id = string.format("%s-%04d", sale, number) end
      heads[number] = "POST /v1/sales/" .. id .. "/orders HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port ..
         "\r\nContent-Type: application/json\r\nContent-Length: " .. length .. last .. "\r\nIdempotency-Key: k-"
   end
end

function request()
   customer = customer + 1
   turn = turn + 1
   if turn > #heads then turn = 1 end
   return heads[turn] .. customer .. MIDDLE .. customer .. TAIL
end

function done(summary, latency, requests)
   local errors = summary.errors
   print(string.format(
      '\n{"duration_us":%d,"answers":%d,"refused":%d,"broken":%d,"timeouts":%d,"p50_us":%d,"p99_us":%d,"max_us":%d}',
      summary.duration, summary.requests, errors.status, errors.connect + errors.read + errors.write, errors.timeout,
      latency:percentile(50), latency:percentile(99), latency.max))
end
