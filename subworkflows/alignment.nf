// Bayesian polishing: one job; where there are many tilt series, groups of them are worked on side by side before it,
// and it only puts together what they found, with the same result.
include { IN_GROUPS ; GATHERED } from './groups'
include { POLISH ; POLISH as POLISH_GROUP } from '../modules/relion/polish'

workflow ALIGNMENT {
    take:
    inputs // [meta, name, settings] + series + [particle set, half maps, mask job, post-process job]

    main:
    sets = inputs.branch { row ->
        many: row[2].groups > 1
        few: true
    }
    IN_GROUPS(sets.many)
    POLISH_GROUP(IN_GROUPS.out.map { row -> row + [[]] })
    GATHERED(POLISH_GROUP.out.map { meta, job, _particles -> [meta, job] })
    POLISH(sets.few.map { row -> row + [[]] }.mix(sets.many.join(GATHERED.out)))

    emit:
    job = POLISH.out // [meta, job, particle set]
}
