-- Receipts of a key: a hash by request id, and a sorted set of the ids by time.
local RECEIPT_SECONDS = 86400

-- Keep a receipt. Remove those that are older than a day, some at a time, and the oldest of more than `most`.
local function keep_receipt(names, time, id, receipt, most)
  local times = names .. ':at'
  redis.call('HSET', names, id, receipt)
  redis.call('ZADD', times, time, id)
  local removed = redis.call('ZRANGEBYSCORE', times, '-inf', time - RECEIPT_SECONDS, 'LIMIT', 0, 100)
  if #removed == 0 then
    local surplus = redis.call('ZCARD', times) - most
    if surplus > 0 then
      removed = redis.call('ZRANGE', times, 0, math.min(surplus, 100) - 1)
    end
  end
  if #removed > 0 then
    redis.call('HDEL', names, unpack(removed))
    redis.call('ZREM', times, unpack(removed))
  end
  redis.call('EXPIRE', names, RECEIPT_SECONDS)
  redis.call('EXPIRE', times, RECEIPT_SECONDS)
end
