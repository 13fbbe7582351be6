-- Stores the values of a finished task under its tenant and run. `data` is {run, {{key, value, ms to keep it or 0 for
-- ever}, ...}}. Values of failed attempts do not get here.
--
-- A run has a hash of its values by task and key, an index of them by key and time, and a list of them by the ms at which
-- they expire, from which each task that ends removes some. 'run:' and a task name the run that it has stored them in.

-- @takes integer, read_all, write_all from lib/base.lua

if data and state == 'F' then
  local FIELD, ENTRY, VALUE = '>Hc0', '>Hc0dd', '>dd' -- task; key, µs at which stored, ms until which kept; the latter two
  local run, values, place = data[1], data[2], #name .. ':' .. name
  local run_key, index, expiry = OWN .. place .. run, OWN .. 'index:' .. place .. run, OWN .. 'expiry:' .. place .. run
  mine.tasks = (mine.tasks or 0) + 1
  local at = shard.now + mine.tasks -- so that values keep the order in which their tasks ended
  later[#later + 1] = function()
    local before, longest = call('PTTL', run_key), 0
    local fields, entries, expiring, over, replaced = {}, {}, {}, {}, {}
    local places = {}
    for n, pushed in ipairs(values) do places[n] = struct.pack(FIELD, #id, id) .. pushed[1] end
    local known = read_all('HMGET', run_key, places)
    for n, pushed in ipairs(values) do
      local key, value, ms = pushed[1], pushed[2], pushed[3]
      local kept_until = ms == 0 and 0 or shard.ms + ms
      local field, entry, old = places[n], struct.pack(ENTRY, #key, key, at, kept_until) .. id, known[n]
      if old then
        local old_until, old_at = struct.unpack(VALUE, old)
        replaced[#replaced + 1] = struct.pack(ENTRY, #key, key, old_at, old_until) .. id
      end
      longest = ms == 0 and math.huge or math.max(longest, ms)
      fields[#fields + 1], fields[#fields + 2] = field, struct.pack(VALUE, kept_until, at) .. value
      entries[#entries + 1], entries[#entries + 2] = 0, entry
      if ms > 0 then expiring[#expiring + 1], expiring[#expiring + 2] = integer(kept_until), entry end
    end
    for _, entry in ipairs(call('ZRANGEBYSCORE', expiry, '-inf', integer(shard.ms), 'LIMIT', 0, 2 * #values)) do
      local key, _, _, at = struct.unpack(ENTRY, entry)
      over[#over + 1], replaced[#replaced + 1] = struct.pack(FIELD, #entry - at + 1, entry:sub(at)) .. key, entry
    end
    write_all('HDEL', run_key, over)
    write_all('ZREM', index, replaced)
    write_all('ZREM', expiry, replaced)
    write_all('HSET', run_key, fields)
    write_all('ZADD', index, entries)
    write_all('ZADD', expiry, expiring)
    if run ~= id then call('SET', OWN .. 'run:' .. place .. id, run) end
    if longest == math.huge then
      for _, key in ipairs({ run_key, index, expiry }) do call('PERSIST', key) end
    else
      for _, key in ipairs(before ~= -1 and before < longest and { run_key, index, expiry } or {}) do -- -1: for ever
        call('PEXPIRE', key, integer(longest))
      end
      call('PEXPIRE', OWN .. 'run:' .. place .. id, integer(longest))
    end
  end
end
