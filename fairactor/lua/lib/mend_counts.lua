-- Repairs the counts of tenants and those of the shard, from what the repair has counted.

-- @include lib/mend_steps.lua
-- @include lib/counts.lua

-- The sums over the tenants that were counted.
local sums = { struct.unpack(COUNTS_FORMAT, redis.call('HGET', MENDING, '.sums') or NO_COUNTS) }

-- Of ended tasks only the records are left, so their totals never become less.
local function recount(names)
  local found, fresh, is_done = known_of('c', names), {}, {}
  for i, name in ipairs(names) do
    if not is_done[name] and #(found[i] or '') <= #NO_COUNTS then
      fresh[#fresh + 1], is_done[name] = name, found[i] or NO_COUNTS
    end
  end
  spend(3 * #names)
  load_counts(fresh)
  for _, name in ipairs(fresh) do
    local c, now_found = counts[name], { struct.unpack(COUNTS_FORMAT, is_done[name]) }
    for i = 1, KEEP_UNTIL do c[i] = i <= DEFERRED and now_found[i] or math.max(c[i], now_found[i]) end
    for i = 1, CANCELED do sums[i] = sums[i] + c[i] end
    note('c', name, pack_counts(c) .. '\1')
  end
  state.sums = pack_counts(sums)
  save_counts()
  for _, name in ipairs(fresh) do counts[name] = nil end
end

-- Puts the sums into the counts of the shard.
local function use_sums()
  for i = 1, CANCELED do total[i] = i <= DEFERRED and sums[i] or math.max(total[i], sums[i]) end
end

-- Deletes the list of ended tasks of a tenant that is not known.
local function forget_list_of_ended(name, key)
  spend(2)
  if call('HEXISTS', COUNTS, name) == 0 then call('UNLINK', key) end
end

-- Removes drained tenants that are none; tend.lua does so with those whose time is over.
local function repair_drained(_, flat)
  for i = 1, #flat, 2 do
    local packed = call('HGET', COUNTS, flat[i])
    local c = { struct.unpack(COUNTS_FORMAT, packed or NO_COUNTS) }
    spend(2)
    local stays = packed and (c[KEEP_UNTIL] * 1e6 > shard.now or live(c) + c[WAITING] + c[DEFERRED] > 0)
    if not stays and tonumber(flat[i + 1]) >= shard.now / 1e6 then call('ZREM', DRAINED, flat[i]) end
  end
end
