-- Receipts of a key: a hash by request id, and a sorted set of the ids by time.
local RECEIPT_SECONDS = 86400

-- Keep a receipt. Remove those that are older than a day, some at a time, and the oldest of more than `most`. A stored
-- time that is ahead of the clock counts as the moment before. Times are seconds with a fraction, which order
-- those of one second.
local function keep_receipt(names, time, id, receipt, most)
  local times = names .. ':at'
  for _, ahead in ipairs(redis.call('ZRANGEBYSCORE', times, string.format('(%.6f', time), '+inf')) do
    redis.call('ZADD', times, string.format('%.6f', time - 0.000001), ahead)
  end
  redis.call('HSET', names, id, receipt)
  redis.call('ZADD', times, string.format('%.6f', time), id)
  local removed = redis.call('ZRANGEBYSCORE', times, '-inf', string.format('%.6f', time - RECEIPT_SECONDS),
    'LIMIT', 0, 100)
  if #removed == 0 then
    local surplus = redis.call('ZCARD', times) - most
    if surplus > 0 then
      for _, oldest in ipairs(redis.call('ZRANGE', times, 0, math.min(surplus, 100))) do
        if oldest ~= id and #removed < math.min(surplus, 100) then
          removed[#removed + 1] = oldest
        end
      end
    end
  end
  if #removed > 0 then
    redis.call('HDEL', names, unpack(removed))
    redis.call('ZREM', times, unpack(removed))
  end
  redis.call('EXPIRE', names, RECEIPT_SECONDS)
  redis.call('EXPIRE', times, RECEIPT_SECONDS)
end
