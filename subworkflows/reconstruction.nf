// An average: one job, or sums over groups of tilt series where there are many, with the same result.
include { SPLIT } from '../modules/core/split'
include { RECONSTRUCT } from '../modules/relion/reconstruct'
include { RECONSTRUCT_GROUP ; MERGE_RECONSTRUCT } from '../modules/relion/reconstruct_groups'

workflow RECONSTRUCTION {
    take:
    inputs // [meta, purpose, settings, import job, particle set]

    main:
    sets = inputs.branch { _meta, _purpose, settings, _tilt_series, _particles ->
        many: settings.groups > 1
        few: true
    }
    RECONSTRUCT(sets.few)

    SPLIT(sets.many.map { meta, _purpose, settings, tilt_series, particles -> [meta, settings.groups, tilt_series, particles] })
    RECONSTRUCT_GROUP(
        sets.many.join(SPLIT.out).flatMap { meta, purpose, settings, tilt_series, _particles, groups ->
            members(meta, groups).collect { member, group -> [member, purpose, settings, tilt_series, group] }
        }
    )
    parts = RECONSTRUCT_GROUP.out
        .map { meta, job -> [groupKey(meta.subMap(['id', 'project']), meta.groups), meta.group, job] }
        .groupTuple()
        .map { key, numbers, jobs -> [key.getGroupTarget(), in_order(numbers, jobs)] }
    MERGE_RECONSTRUCT(sets.many.join(parts))

    emit:
    job = RECONSTRUCT.out.mix(MERGE_RECONSTRUCT.out) // [meta, reconstruct job]
}

def members(meta, groups) {
    return groups.withIndex().collect { group, number -> [meta + [group: number + 1, groups: groups.size()], group] }
}

def in_order(numbers, jobs) {
    return [numbers, jobs].transpose().sort { row -> row[0] }.collect { row -> row[1] }
}
